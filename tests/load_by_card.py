"""Runs the code of a saved model's card as it stands, and prints what it writes of dialogues.

    python tests/load_by_card.py MODEL_FOLDER PREDICTIONS.csv

Imports nothing of this project. Prints one JSON list: the summaries, in the file's order.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from pathlib import Path

folder, table = Path(sys.argv[1]), Path(sys.argv[2])
card = (folder / "README.md").read_text(encoding="utf-8")
found = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)
assert found is not None
tree = ast.parse(found[1])
*loading, dialogue, inputs, move, written, printed = tree.body
names: dict[str, object] = {}
exec(compile(ast.Module(loading, []), "card", "exec"), names)
each = compile(ast.Module([inputs, move, written], []), "card", "exec")
summaries = []
with table.open(encoding="utf-8", newline="") as file:
    for row in csv.DictReader(file):
        names["dialogue"] = row["dialogue"]
        exec(each, names)
        decode = names["tokenizer"].decode  # type: ignore[attr-defined]
        summaries.append(decode(names["written"][0], skip_special_tokens=True).strip())  # type: ignore[index]
assert "dialsum" not in sys.modules
print(json.dumps(summaries))
