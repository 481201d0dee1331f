// run.js: one answer on its way: asks, collects what streams in, measures, waits and asks again where the server says so.
// Knows no elements; whoever starts a run is told of changes.
import { ApiError, streamChat } from "./api.js";

const MAX_TRIES = 6;

// What the page asks every stream for, beyond the answer.
const REPORTS = { stream_options: { include_usage: true }, return_progress: true, timings_per_token: true };

export class Run {
  // body: the request.  onChange(run) comes after anything below changed.
  constructor(body, onChange) {
    this.body = body;
    this.onChange = onChange;
    this.phase = "waiting"; // "reading" the prompt, "writing", "pausing" before another try, then "done"
    this.state = "running"; // at the end "done", "stopped" or "failed"
    this.text = "";
    this.reasoning = "";
    this.tokens = []; // {text, logprob, top: [{token, logprob}]}, where logprobs were asked for
    this.error = null;
    this.progress = null; // {done, total, cached}
    this.pauseUntil = 0;
    this.finish = null;
    this.timings = null;
    this.cache = null;
    this.usage = null;
    this.pieces = 0;
    this.controller = new AbortController();
  }

  stop() {
    this.controller.abort();
    this.wake?.();
  }

  // Cuts a pause short.
  tryNow() {
    this.wake?.();
  }

  // Never throws: state and error say how it went.
  async go() {
    for (let tries = 1; this.state === "running"; tries++) {
      try {
        await this.attempt();
        this.state = "done";
      } catch (error) {
        if (this.controller.signal.aborted) this.state = "stopped";
        else if (tries < MAX_TRIES && error instanceof ApiError && error.retry && error.status && !this.text && !this.reasoning) await this.pause(error, tries);
        else this.fail(error);
      }
    }
    this.phase = "done";
    this.onChange(this);
  }

  fail(error) {
    this.state = "failed";
    this.error = error instanceof ApiError ? error : new ApiError(`The page failed: ${error.message}`);
    if (!(error instanceof ApiError)) console.error(error);
  }

  // Waits as long as the server wishes, or 1, 2, 4, … seconds.
  async pause(error, tries) {
    const seconds = Math.min(60, error.retryAfter ?? 2 ** (tries - 1));
    this.error = error;
    this.phase = "pausing";
    this.pauseUntil = Date.now() + 1000 * seconds;
    this.onChange(this);
    await new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, 1000 * seconds);
    });
    this.wake = null;
    if (this.controller.signal.aborted) this.state = "stopped";
    this.error = null;
  }

  async attempt() {
    this.phase = "waiting";
    this.progress = null;
    this.started = performance.now();
    this.onChange(this);
    for await (const chunk of streamChat({ ...this.body, ...REPORTS }, this.controller.signal)) {
      this.take(chunk);
      this.onChange(this);
    }
  }

  take(chunk) {
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    if (chunk.prompt_progress) {
      this.phase = "reading";
      this.progress = chunk.prompt_progress;
    }
    if (delta.content || delta.reasoning_content) {
      const now = performance.now();
      if (this.phase !== "writing") this.firstAt = now;
      this.phase = "writing";
      this.lastAt = now;
      this.pieces++;
      this.text += delta.content ?? "";
      this.reasoning += delta.reasoning_content ?? "";
    }
    for (const token of choice?.logprobs?.content ?? [])
      this.tokens.push({ text: token.token, logprob: token.logprob, top: token.top_logprobs ?? [] });
    if (choice?.finish_reason) this.finish = choice.finish_reason;
    if (chunk.timings) this.timings = chunk.timings;
    if (chunk.turboquant) this.cache = chunk.turboquant;
    if (chunk.usage) this.usage = chunk.usage;
  }

  // {ttft, rate, read, cached}: milliseconds, tokens/s, tokens; null where not known yet.  The server's own figures once
  // they are there, before that the page's: pieces are tokens but for the few that come together.
  figures() {
    const measured = this.pieces > 1 && this.lastAt > this.firstAt;
    return {
      ttft: this.timings?.ttft_ms ?? (this.pieces ? this.firstAt - this.started : null),
      rate: this.timings?.predicted_per_second ?? (measured ? ((this.pieces - 1) * 1000) / (this.lastAt - this.firstAt) : null),
      written: this.usage?.completion_tokens ?? this.timings?.predicted_n ?? (this.pieces || null),
      prompt: this.usage?.prompt_tokens ?? this.progress?.total ?? null,
      cached: this.usage?.prompt_tokens_details?.cached_tokens ?? this.timings?.cache_n ?? this.progress?.cached ?? null,
    };
  }
}
