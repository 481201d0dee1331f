"""tally.py: counting checks, for tests that go on after one fails."""
passed = failed = 0


def check(condition, what):
    global passed, failed
    if condition:
        passed += 1
        return
    failed += 1
    if failed <= 25:
        print("FAILED:", what)


def finish():
    """Print the line that ./check counts; the exit status: 0 only if something passed and nothing failed."""
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
