"""What is said of texts stays a few lines, however many texts there are."""

from throughtime.text.findings import Finding, lines


def test_a_kind_of_finding_is_said_of_three_texts_and_counted_for_the_rest():
    findings = [Finding(f"{n}.txt", "crlf", f"has {n} line ends") for n in range(1000)]
    assert lines([*findings, Finding("x", "nul", "holds NUL")]) == (
        "0.txt has 0 line ends",
        "1.txt has 1 line ends",
        "2.txt has 2 line ends",
        "the same holds for 997 more, such as 3.txt",
        "x holds NUL",
    )


def test_names_cannot_command_a_terminal():
    assert lines([Finding("a\x1b[2J\n.txt", "empty", "is empty")]) == ("a\\x1b[2J\\n.txt is empty",)
