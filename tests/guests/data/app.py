"""Run by a CPython whose standard library is on another volume: proves that both are read."""

import json
import pathlib
import sqlite3

database = sqlite3.connect(":memory:")
database.execute("create table t (n)")
database.executemany("insert into t values (?)", [(n,) for n in range(10)])
total = database.execute("select sum(n * n) from t").fetchone()[0]
print(json.dumps({"total": total, "files": sorted(p.name for p in pathlib.Path("/in").glob("*.py"))}))
