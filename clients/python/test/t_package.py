# only once: it builds and installs
"""What would be published: built, installed into an empty environment, and the README's own
five minutes, to a first fenced hit."""
import os
import re
import subprocess
import sys
import zipfile

import tap
from tap import connect, ok, same

WORK = os.environ["WORK"]
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def command(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode:
        print("# " + (done.stdout + done.stderr).replace("\n", "\n# "))
    return done


def block(name):
    with open(os.path.join(HERE, "README.md")) as file:
        return re.search(f"<!-- {name} -->\n```\\w+\n(.*?)```", file.read(), re.S)[1]


def main():
    os.makedirs(f"{WORK}/package", exist_ok=True)
    subprocess.run(["cp", "-r", HERE, f"{WORK}/package/source"], check=True)
    built = command(sys.executable, "-m", "build", "--no-isolation", "-x", "--outdir",
                    f"{WORK}/package/dist", f"{WORK}/package/source")
    if not ok(built.returncode == 0, "package: python -m build makes it"):
        return
    wheel = next(name for name in os.listdir(f"{WORK}/package/dist") if name.endswith(".whl"))
    wheel = f"{WORK}/package/dist/{wheel}"
    names = zipfile.ZipFile(wheel).namelist()
    ok({"pg_uncache/__init__.py", "pg_uncache/django.py", "pg_uncache/py.typed"} <= set(names) and
       not [name for name in names if "test" in name], "package: what belongs into it", names)

    python = f"{WORK}/package/env/bin/python"
    # The application's Redis client and driver are Debian's; the package itself comes from dist.
    command(sys.executable, "-m", "venv", "--system-site-packages", f"{WORK}/package/env")
    done = command(python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel)
    ok(done.returncode == 0, "package: pip installs it without any other")
    with connect() as db:
        db.execute("DROP TABLE IF EXISTS users")
        for sql in block("setup").split(";\n"):
            if sql.strip():
                db.execute(sql)
        db.execute("SELECT uncache.invalidate_keys('user:42'), uncache.wait()")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["DATABASE_URL"] = "postgresql://"
    os.makedirs(f"{WORK}/package/empty", exist_ok=True)
    done = command(python, "-c", block("first"), cwd=f"{WORK}/package/empty", env=environment)
    lines = done.stdout.splitlines()
    same(lines[:2], ["('Ann',)", "['Ann']"], "package: the README's code runs to a hit")
    ok("'hit': 1" in lines[-1] and "'stored': 1" in lines[-1], "package: which was fenced", lines)
    done = command(python, "-c", "from dogpile.cache import make_region\n"
                   "make_region().configure('pg_uncache', arguments={'url': 'redis://x', "
                   "'database': lambda tokens: None, 'fenced': ['user:']})\nprint('found')",
                   cwd=f"{WORK}/package/empty", env=environment)
    same(done.stdout, "found\n", "package: dogpile.cache finds its backend")


tap.run(main)
