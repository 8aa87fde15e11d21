import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_targets_and_no_photos(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {
        "edgeeff/targets/host-cpu.yaml",
        "edgeeff/cli/commands.py",
        "edgeeff/backends/openvino.py",
        "edgeeff/report/report.html.j2",
    } <= set(names)
    assert not [n for n in names if n.endswith((".png", ".jpg", ".pth", ".pyc"))]
