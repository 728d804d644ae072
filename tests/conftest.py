"""Makes `from models import ...` (tests/models.py) work in every test, whatever folder it stands in."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
