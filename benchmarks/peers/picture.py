"""What every tool ships for a CPU as a picture: for each task a bar for each file, as long as a photo takes beside edgeeff's."""

from __future__ import annotations

import html
from typing import Any

WIDTH, NAMES, ROW, HEAD, GAP, END = 490, 300, 20, 44, 30, 60  # px: a panel, the names in it, and what each line needs
STYLE = (
    "text{font:12px system-ui,'Segoe UI',Roboto,'Liberation Sans',sans-serif;fill:#1a1a1a}.soft{fill:#666}.head{font-weight:600}"
    ".bar{fill:#b9c4c9}.ours{fill:#0b6e4f}.beyond{fill:none;stroke:#8a979d;stroke-dasharray:3 2}.one{stroke:#bbb}"
)


def picture(results: list[dict[str, Any]], ours: str) -> str:
    """SVG of what `cpu.compare` measured, two tasks side by side. Files that lose more than the gate allows are dashed."""
    rows = max(len(result["rows"]) for result in results)
    height = HEAD + ROW * rows + GAP
    total = height * ((len(results) + 1) // 2) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH + GAP} {total}" role="img">',
        f"<title>Latency of what each tool ships, in units of {html.escape(ours)}</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for i, result in enumerate(results):
        lines += panel(result, (i % 2) * (WIDTH + GAP), (i // 2) * height)
    note = f"p50 of one photo in units of {ours}; dashed: loses more than {results[0]['max_drop']} points of top-1"
    lines.append(f'<text class="soft" x="0" y="{total - 8}">{html.escape(note)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def panel(result: dict[str, Any], left: int, top: int) -> list[str]:
    """One task."""
    ran = [row for row in result["rows"] if "refused" not in row]
    longest = max(row["behind"]["times"] for row in ran)
    start, unit = left + NAMES, (WIDTH - NAMES - END) / longest
    lines = [f'<text class="head" x="{left}" y="{top + 28}">{html.escape(result["task"])}</text>']
    for i, row in enumerate(result["rows"]):
        y = top + HEAD + ROW * i
        lines.append(f'<text x="{start - 8}" y="{y + 12}" text-anchor="end">{html.escape(row["name"])}</text>')
        if "refused" in row:
            lines.append(f'<text class="soft" x="{start}" y="{y + 12}">refuses</text>')
            continue
        kind = "beyond" if not row["step"]["passed"] else "ours" if row["name"].startswith("edgeeff") else "bar"
        times = row["behind"]["times"]
        lines.append(f'<rect class="{kind}" x="{start}" y="{y + 2}" width="{times * unit:.1f}" height="{ROW - 6}"/>')
        lines.append(f'<text class="soft" x="{start + times * unit + 5:.1f}" y="{y + 12}">{times:.2f}</text>')
    bottom = top + HEAD + ROW * len(result["rows"])
    lines.append(f'<path class="one" d="M{start + unit:.1f} {top + HEAD - 4}V{bottom}"/>')
    return lines
