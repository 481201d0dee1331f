// panel.js: beside the conversation: its cache, live, and what the last answer took.
import { CacheStrip } from "./cache_strip.js";
import { byId, el, formatBytes, formatCount, formatRate, formatSeconds, iconButton } from "./dom.js";

export class Panel {
  // hooks: {codec() -> name or "", setCodec(name), close()}
  constructor(hooks) {
    this.hooks = hooks;
    this.props = null;
    this.strip = new CacheStrip();
    this.codec = el("select", { id: "codec", "aria-describedby": "codec-about" });
    this.codec.addEventListener("change", () => hooks.setCodec(this.codec.value));
    this.values = {};
    const fact = (key, label) => {
      this.values[key] = el("dd", {}, "–");
      return el("div", {}, el("dt", {}, label), this.values[key]);
    };
    this.context = el("meter", { min: 0, max: 1, value: 0, "aria-label": "Context used" });
    this.contextWords = el("span", {}, "");
    byId("panel").append(
      el("header", {}, el("h2", {}, "Cache"), iconButton("close", "Close", hooks.close, { class: "icon-button only-narrow" })),
      this.strip.node,
      el("dl", { class: "facts" }, fact("rate", "tokens/s"), fact("ttft", "to first token"), fact("prompt", "prompt tokens"), fact("cached", "of them cached")),
      el("div", { class: "context" }, el("div", {}, el("span", {}, "Context"), this.contextWords), this.context),
      el("div", { class: "field" }, el("label", { for: "codec" }, "Codec"), this.codec,
        el("small", { id: "codec-about" }, "How the next answer's cache is kept. Another codec reads the conversation anew.")));
  }

  setProps(props) {
    this.props = props;
    const names = props?.kv_available ?? [];
    const chosen = this.hooks.codec();
    this.codec.replaceChildren(
      el("option", { value: "" }, props?.kv ? `${props.kv} (default)` : "default"),
      ...names.filter((name) => name !== props?.kv).map((name) => el("option", { value: name }, name)));
    // A codec set in an earlier visit may be one this server does not offer: it says so when asked.
    if (chosen && !names.includes(chosen)) this.codec.append(el("option", { value: chosen }, chosen));
    this.codec.value = chosen === props?.kv ? "" : chosen;
  }

  // cache, figures: of the newest answer, as run.js has them; null where there is none.
  show(cache, figures) {
    this.strip.show(cache);
    const set = (key, value, format) => (this.values[key].textContent = value == null ? "–" : format(value));
    set("rate", figures?.rate, formatRate);
    set("ttft", figures?.ttft, formatSeconds);
    set("prompt", figures?.prompt, formatCount);
    set("cached", figures?.cached, formatCount);
    const ctx = this.props?.ctx ?? this.props?.max_context;
    const used = cache?.tokens ?? 0;
    this.context.max = ctx || 1;
    this.context.high = 0.9 * (ctx || 1);
    this.context.value = Math.min(used, ctx || 0);
    this.contextWords.textContent = ctx ? `${formatCount(used)} of ${formatCount(ctx)} tokens` : `${formatCount(used)} tokens`;
    // On a phone, in a line above the message.
    const peek = byId("peek");
    peek.hidden = !cache;
    if (cache)
      peek.replaceChildren(el("span", {}, "Cache ", el("strong", {}, formatBytes(cache.bytes)), ` of ${formatBytes(cache.f16_bytes)}`),
        el("span", {}, figures?.rate ? `${formatRate(figures.rate)} tokens/s` : ""));
  }
}
