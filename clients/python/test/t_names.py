"""docs/names.md, Python: what each row says is what the library really writes."""
import os
import re

import tap
from tap import client, connect, ok, same

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../docs/names.md")


def table():
    with open(PAGE) as file:
        part = re.search("<!-- python -->\n(.*?)<!-- /python -->", file.read(), re.S)[1]
    return [[cell.strip().strip("`").replace("\\|", "|") for cell in line.strip("|").split(" | ")]
            for line in part.splitlines()[2:]]


def own_backend():
    try:
        import django.core.cache.backends.redis  # noqa: F401
        return "django.core.cache.backends.redis.RedisCache"
    except ImportError:
        return None


def configure():
    from django.conf import settings
    own, other = own_backend(), "django_redis.cache.RedisCache"
    caches = {}
    for kind, backend in (("own", own or other), ("django_redis", other)):
        caches[kind] = {"BACKEND": backend, "LOCATION": tap.REDIS_URL}
        caches[kind + "_prefix"] = {**caches[kind], "KEY_PREFIX": "app", "VERSION": 2}
    caches["default"] = caches["own"]
    settings.configure(
        CACHES=caches, USE_TZ=False, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[], USE_I18N=True, TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {
                "row.html": "{% load cache %}{% cache 60 user_row id %}x{% endcache %}"})]}}])
    import django
    django.setup()


urlpatterns = []


def calls():
    """What is in the first column, as something that runs."""
    from django.core.cache import caches
    from django.http import HttpResponse
    from django.template.loader import render_to_string
    from django.test import RequestFactory
    from django.views.decorators.cache import cache_page
    from dogpile.cache import make_region
    from dogpile.cache.util import sha1_mangle_key

    def page():
        return cache_page(60)(lambda request: HttpResponse("x"))(
            RequestFactory().get("/users/42"))

    def region(**more):
        return make_region(**more).configure(
            "dogpile.cache.redis", arguments={"url": tap.REDIS_URL})

    def decorated(**more):
        def user(id):
            return 1
        user.__module__ = "app"
        return region().cache_on_arguments(**more)(user)(42)
    return {
        'cache.set("user:42", 1)': lambda: caches["own"].set("user:42", 1),
        'cache.set("user:42", 1, version=3)': lambda: caches["own"].set("user:42", 1, version=3),
        'prefixed.set("user:42", 1)': lambda: caches["own_prefix"].set("user:42", 1),
        'django_redis.set("user:42", 1)': lambda: caches["django_redis"].set("user:42", 1),
        'django_redis.lock("user:42")': lambda: caches["django_redis"].lock("user:42").acquire(),
        "{% cache 60 user_row id %}": lambda: render_to_string("row.html", {"id": 42}),
        "@cache_page(60)": page,
        'region.set("user:42", 1)': lambda: region().set("user:42", 1),
        'mangled.set("user:42", 1)': lambda: region(key_mangler=sha1_mangle_key).set("user:42", 1),
        "@region.cache_on_arguments()": decorated,
        '@region.cache_on_arguments(namespace="v1")': lambda: decorated(namespace="v1"),
    }


def main():
    configure()
    known, r, db = calls(), client(), connect()
    db.execute("DROP TABLE IF EXISTS names")
    db.execute("CREATE TABLE names AS SELECT 42 AS id")
    seen = set()
    for call, key, template in table():
        seen.add(call)
        if call not in known:
            ok(False, f"names: {call} is a call that this test knows")
            continue
        r.flushdb()
        known[call]()
        keys = sorted(name.decode() for name in r.keys())
        shape = re.compile(re.escape(key).replace("DIGEST", "[0-9a-f]{32,40}") + r"\Z")
        found = [name for name in keys if shape.match(name)]
        ok(found, f"names: {call} writes {key}", keys)
        if template != "none":
            same(db.execute("SELECT uncache.render(%s, n) FROM names n", [template]).fetchone()[0],
                 [key], f"names: and {template} renders to that")
    same(seen, set(known), "names: the page has all that this test knows")
    r.flushdb()


if __name__ == "__main__":
    tap.run(main)
