"""How tags stand in the text: speakers and masks between two marks.

Must not know which tags there are.
"""

from __future__ import annotations

import re

TAG = re.compile(r"#[A-Za-z][A-Za-z0-9_]*#")
"""#Person1#, #PhoneNumber# …: Latin letters and digits between two marks, as the data has them."""
