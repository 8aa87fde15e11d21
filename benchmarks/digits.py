"""Write scikit-learn's handwritten digits as folders of PNG files: real photos of a kind, offline, for the demo and the tests.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998): 1797 digits by 43 writers, 8 × 8 pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image


def write(folder: Path, *, each: int = 1000, side: int = 64) -> None:
    """`folder`/{train,val}/DIGIT/*.png: every fourth digit judges, the others train, at most `each` of a class and set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / ("val" if i % 4 == 0 else "train") / str(label)
        target.mkdir(parents=True, exist_ok=True)
        if len(list(target.iterdir())) < each:
            image = Image.fromarray((pixels * 255 / 16).astype("uint8")).resize((side, side), Image.Resampling.BICUBIC)
            image.save(target / f"{i:04}.png")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
