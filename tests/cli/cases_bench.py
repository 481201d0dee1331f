"""cases_bench.py: `tq bench`: what it prints can be read by machines, and what cannot be measured is said."""

import csv
import io
import json

from cases import test, tq
from harness import check, check_equal, check_in

TINY = ["--model", "synthetic:tiny", "--repeats", "1", "--decode", "4"]


def results(*args):
    run = tq("bench", *args, "--json").expect(0)
    return json.loads(run.out)["results"]


@test
def bench_names_its_kinds(tmp):
    check_in("context", tq("bench", "--help").expect(0).text, "bench --help")
    tq("bench").expect(2, "usage: tq bench KIND")
    tq("bench", "nonsense").expect(2, "unknown measurement 'nonsense'")


@test
def bench_context_measures_every_cell(tmp):
    rows = results("context", *TINY, "--contexts", "300,600", "--kv", "f16,tq3")
    check_equal([(r["kv"], r["context"]) for r in rows], [("f16", 300), ("f16", 600), ("tq3", 300), ("tq3", 600)], "cells")
    for row in rows:
        for key in ("decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "cache_bytes", "peak_rss_bytes"):
            check(row[key] > 0, f"{key} of {row}")
    check(rows[3]["cache_bytes"] < rows[1]["cache_bytes"], "tq3 takes less than f16")


@test
def bench_context_of_random_rows_says_so_and_has_no_time_to_first_token(tmp):
    (row,) = results("context", *TINY, "--contexts", "1000", "--kv", "tq3", "--fill", "synthetic", "--prompt", "64")
    check_equal((row["fill"], row["ttft_ms"], row["context"]), ("synthetic", None, 1000), "row")
    check(row["prefill_tokens_per_s"] > 0, "the prefill behind them is timed")
    check_in("random", row["weights"], "weights")


@test
def bench_tables_can_be_read_as_csv(tmp):
    text = tq("bench", "context", *TINY, "--contexts", "300", "--kv", "f16,tq:k=q8,v=tq4", "--csv").expect(0).text
    rows = list(csv.DictReader(io.StringIO(text)))
    check_equal([r["label"] for r in rows], ["f16", "tq:k=q8,v=tq4"], "labels")
    check(all(float(r["decode_tokens_per_s"]) > 0 for r in rows), text)


@test
def bench_runs_another_engine_and_reads_its_speed(tmp):
    rows = results("context", *TINY, "--contexts", "300,400", "--kv", "tq3", "--peer",
                   "echo prompt 9.5 tok/s; echo at {context}: 12.25 tok/s")
    check_equal([(r["context"], r["decode_tokens_per_s"]) for r in rows if r["fill"] == "peer"], [(300, 12.25), (400, 12.25)], "peer")
    (row,) = [r for r in results("context", *TINY, "--contexts", "300", "--kv", "tq3", "--peer", "echo speed=7",
                                 "--peer-pattern", "speed=([0-9.]+)") if r["fill"] == "peer"]
    check_equal(row["decode_tokens_per_s"], 7, "peer with a pattern")
    tq("bench", "context", *TINY, "--contexts", "300", "--kv", "tq3", "--peer", "echo none").expect(1, "nowhere in what it printed")
    tq("bench", "context", *TINY, "--contexts", "300", "--kv", "tq3", "--peer", "echo no engine >&2; exit 3").expect(1, "no engine")


@test
def bench_refuses_what_it_cannot_measure(tmp):
    for args, code, reason in (
        (["--kv", "nix"], 1, "unknown codec 'nix'"),
        (["--contexts", "12,x"], 2, "--contexts: want"),
        (["--contexts", "0"], 2, "only with --fill synthetic"),
        (["--fill", "random"], 2, "--fill: want prefill or synthetic, got 'random'"),
        (["--json", "--csv"], 2, "--json and --csv"),
        (["--prompt", "8"], 2, "--prompt: only with --fill synthetic"),
        (["--peer-pattern", "([0-9]+)"], 2, "--peer-pattern: only with --peer"),
        (["--plot", "a.png"], 1, "want a name that ends in .svg"),
    ):
        tq("bench", "context", *TINY, *args).expect(code, reason)
    tq("bench", "context", "--model", "synthetic:nix").expect(1, "no such shape")


@test
def bench_gives_keys_centres_as_it_is_told(tmp):
    cell = [*TINY[:2], "--decode", "4", "--context", "600", "--kv", "tcq3"]
    sizes = {centre: json.loads(tq("bench", "cell", *cell, "--fill", "prefill", "--key-centre", centre).expect(0).out)["cache_bytes"]
             for centre in ("on", "off")}
    check(sizes["off"] < sizes["on"], f"pages without centres are smaller: {sizes}")
    for centre in sizes:  # a table's cells are told too, and so are the lines of a sweep
        (row,) = results("context", *TINY, "--contexts", "600", "--kv", "tcq3", "--key-centre", centre)
        check_equal(row["cache_bytes"], sizes[centre], f"cache of a table's cell, {centre}")
    file = tmp / "cells"
    file.write_text("as told: --kv tcq3 --context 600 --fill prefill\nitself: --kv tcq3 --context 600 --fill prefill --key-centre on\n")
    rows = results("sweep", file, *TINY, "--key-centre", "off")
    check_equal([r["cache_bytes"] for r in rows], [sizes["off"], sizes["on"]], "caches of a sweep")
    for kind, more in (("cell", []), ("context", []), ("parallel", []), ("compare", ["--prompt", "Hi"]), ("sweep", [file])):
        tq("bench", kind, *TINY[:2], *more, "--key-centre", "perhaps").expect(2, "--key-centre: want auto, on or off, got 'perhaps'")
    tq("bench", "parallel", *TINY, "--requests", "1", "--kv", "paper-mse:3", "--key-centre", "on").expect(
        1, "key centre: codec 'paper-mse:3' keeps none")
    tq("bench", "parallel", *TINY, "--requests", "1", "--kv", "tq3", "--key-centre", "off").expect(0)


@test
def bench_cell_refuses_what_a_text_decides(tmp):
    tq("bench", "cell", "--text", "x", "--context", "9").expect(2, "a text is the context")
    tq("bench", "cell", "--text", "x", "--fill", "prefill").expect(2, "a text is the context")
    tq("bench", "cell", "--text", "x", "--prompt", "9").expect(2, "--prompt: only with --fill synthetic")


@test
def bench_draws_a_curve_a_codec(tmp):
    file = tmp / "curves.svg"
    tq("bench", "context", *TINY, "--contexts", "300,600", "--kv", "f16,mlx-k3v2", "--plot", file).expect(0)
    picture = file.read_text()
    for text in ("<svg", "Speed-up over f16", "mlx-k3v2", "tokens of context"):
        check_in(text, picture, "the plot")


@test
def bench_compare_tells_what_each_cache_answers(tmp):
    run = tq("bench", "compare", "--prompt", "Hugo Marsh lives in Lisbon. Where does Hugo Marsh live?", "--repeats", "1",
             "--decode", "12", "--kv", "f16,minmax:4:64,tq3").expect(0)
    check_in("12/12", run.text, "tokens of f16 equal to its own")
    check_in("Lisbon", run.text, "the first words")
    tq("bench", "compare").expect(2, "want --prompt or --prompt-file")


@test
def bench_sweep_reads_a_cell_a_line(tmp):
    file = tmp / "cells"
    file.write_text("# two cells\n\nshort: --kv tq3 --context 100\nlong and f16: --kv f16 --context 400 --threads 1\n")
    rows = results("sweep", file, *TINY)
    check_equal([(r["label"], r["kv"], r["context"], r["threads"] == 1) for r in rows][1], ("long and f16", "f16", 400, True), "row")
    check_equal(rows[0]["label"], "short", "label")
    file.write_text("short: --frob\n")
    tq("bench", "sweep", file, *TINY).expect(2, "unknown option '--frob'", "in line 1")
    file.write_text("no name here\n")
    tq("bench", "sweep", file, *TINY).expect(1, "line 1: want NAME: OPTIONS")
    file.write_text("# nothing\n")
    tq("bench", "sweep", file, *TINY).expect(1, "describes no cell")


@test
def bench_kernels_checks_before_it_times(tmp):
    text = tq("bench", "kernels", "--only", "rows_f16", "--repeats", "1", "--seconds", "0.001").expect(0).text
    check(text.count("right") >= 2 and "WRONG" not in text, text)
    rows = results("kernels", "--only", "rows_f16", "--repeats", "1", "--seconds", "0.001", "--kernels", "scalar")
    check(all(r["right"] and r["gb_per_s"] > 0 for r in rows) and len(rows) == 2, str(rows))
    tq("bench", "kernels", "--kernels", "sse9").expect(2, "unknown kernels 'sse9'")


@test
def bench_parallel_counts_tokens_of_requests_that_decode_together(tmp):
    tiny = ["--model", "synthetic:tiny", "--repeats", "1", "--decode", "24"]
    run = tq("bench", "parallel", *tiny, "--requests", "1,3,17", "--json").expect(0)
    report = json.loads(run.out)
    check_equal([r["requests"] for r in report["results"]], [1, 3, 17], "sizes")
    check(all(r["tokens_per_s"] > 0 and r["cpu_ms_per_token"] > 0 for r in report["results"]), str(report))
    check_equal(report["results"][0]["over_first"], 1, "the first over the first")
    rows = list(csv.DictReader(io.StringIO(tq("bench", "parallel", *tiny, "--requests", "2", "--csv").expect(0).text)))
    check(len(rows) == 1 and float(rows[0]["tokens_per_s"]) > 0, str(rows))
    check_in("over first", tq("bench", "parallel", *tiny, "--requests", "1").expect(0).text, "the table")
    for text in ("0", "65", "1,", "two", "-1"):
        tq("bench", "parallel", *tiny, "--requests", text).expect(2, "--requests: want")
    tq("bench", "parallel", *tiny, "--json", "--csv").expect(2, "give one of them")
    tq("bench", "parallel", *tiny, "--kv", "tq9").expect(1, "tq9")
