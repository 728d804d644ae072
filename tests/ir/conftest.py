"""Printed at the end of the run: what the round trips of ONNX's test models came to (also with pytest-xdist)."""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `from round_trip import …`


def pytest_terminal_summary(terminalreporter):
    totals, lines = Counter(), []
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        for name, content in report.user_properties:
            if name == "round trip count":
                totals[content[0]] += content[1]
            elif name == "round trip exception":
                lines.append(content)
    if not totals:
        return
    terminalreporter.section("round trip of ONNX's node tests")
    terminalreporter.write_line(", ".join(f"{count} {what}" for what, count in sorted(totals.items())))
    reasons = sorted({reason for reason, _ in lines})
    for reason in reasons:
        names = sorted(name for other, name in lines if other == reason)
        terminalreporter.write_line(f"not run: {reason}: {len(names)}: {' '.join(names)}")
