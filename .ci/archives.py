"""Hold the archives against the tree: every tracked file of the packages is in both, and nothing that is not."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOTS = ("src/", "backends/")
BESIDE = (
    *(
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "LICENSES.md",
        "Makefile",
        "README.md",
        "README.ja.md",
    ),
    *("SECURITY.md", "docs/conf.py", "docs/index.md"),
)


def main() -> None:
    folder = Path(sys.argv[1])
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    modules = {name for name in tracked if name.startswith(ROOTS)}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        version = re.search(r"^Version: (.*)$", archive.read(metadata).decode(), re.M)
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
    problems = compare("the wheel", {name.partition("/")[2] for name in modules}, in_wheel)
    problems += compare("the source archive", modules, {name for name in in_source if name.startswith(ROOTS)})
    problems += [f"the source archive lacks {name}" for name in BESIDE if name not in in_source]
    cited = re.search(r"^version: (.*)$", Path("CITATION.cff").read_text(encoding="utf-8"), re.M)
    versions = [version and version[1], cited and cited[1]]
    if len(set(versions)) > 1 or f"## {versions[0]}" not in Path("CHANGELOG.md").read_text(encoding="utf-8"):
        problems.append(f"the version is not the same in the wheel, CITATION.cff and CHANGELOG.md: {versions}")
    print(f"{wheel.name}: {len(in_wheel)} files, {wheel.stat().st_size:,} bytes")
    print(f"{source.name}: {len(in_source)} files, {source.stat().st_size:,} bytes")
    for folder_name in sorted({name.rpartition("/")[0] for name in in_wheel}):
        print(f"  {folder_name}: {sum(name.rpartition('/')[0] == folder_name for name in in_wheel)}")
    raise SystemExit("\n".join(problems) or None)


def compare(what: str, wanted: set[str], found: set[str]) -> list[str]:
    """What is missing, and what should not be there."""
    lacking = [f"{what} lacks {name}" for name in sorted(wanted - found)]
    return lacking + [f"{what} has {name}, which is not tracked" for name in sorted(found - wanted)]


if __name__ == "__main__":
    main()
