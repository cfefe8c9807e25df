import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.service_names import ServiceNameSource, choose, from_program, resource_attributes
from ebbflow.v1 import raw_pb2

ID = "a1" * 32


def name_of(environ=None, container_id="", exe="/usr/bin/thing", argv=("thing",), comm="thing-comm"):
    found = choose(environ=environ or {}, container_id=container_id, exe=exe, argv=argv, comm=comm)
    return found.name, found.source


def test_choose_otel_service_name_wins_over_everything():
    environ = {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}
    assert name_of(environ, ID) == ("shop", ServiceNameSource.OTEL_ENV)


def test_choose_resource_attribute_wins_over_container():
    assert name_of({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=my%20shop"}, ID) == (
        "my shop",
        ServiceNameSource.OTEL_ENV,
    )


@pytest.mark.parametrize("environ", [{"OTEL_SERVICE_NAME": ""}, {"OTEL_SERVICE_NAME": " "}, {}])
def test_choose_empty_variable_counts_as_unset(environ):
    assert name_of(environ, ID) == ("a1a1a1a1a1a1", ServiceNameSource.CONTAINER)


def test_choose_container_name_stays_whole():
    assert name_of(container_id="web-frontend-1") == ("web-frontend-1", ServiceNameSource.CONTAINER)


def test_choose_outside_containers_is_executable():
    assert name_of(exe="/usr/sbin/nginx") == ("nginx", ServiceNameSource.EXE)


@pytest.mark.parametrize("exe", ["", "/memfd:sealed"])
def test_choose_executable_without_a_path_is_comm(exe):
    assert name_of(exe=exe, comm="kworker/0:1") == ("kworker/0:1", ServiceNameSource.COMM)


def test_source_values_are_those_of_the_protocol():
    names = {f"SERVICE_NAME_SOURCE_{source.name}": source.value for source in ServiceNameSource}
    assert names == {name: value for name, value in raw_pb2.ServiceNameSource.items() if value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=b", {"a": "b"}),
        (" a = b , c=d%2Ce ,", {"a": "b", "c": "d,e"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=%C3%A9", {"a": "é"}),
        ("a=", {"a": ""}),
        ("a=b,broken", {}),
        ("=b", {}),
        ("a=%ff,service.name=x", {}),
    ],
)
def test_resource_attributes_as_the_specification_says(text, expected):
    assert resource_attributes(text) == expected


@pytest.mark.parametrize(
    ("exe", "command", "expected"),
    [
        ("/usr/sbin/nginx", "nginx: worker process", "nginx"),
        ("/usr/bin/python3.11", "python app.py", "app"),
        ("/usr/bin/python3.11", "python3 -u -W ignore -X dev /srv/shop/orders.py --port 1", "orders"),
        ("/usr/bin/python3.11", "python3 -Wignore -Xdev web.py", "web"),
        ("/usr/bin/python3.11", "python3 -m http.server 80", "http.server"),
        ("/usr/bin/python3.11", "python3 -Im http.server", "http.server"),
        ("/usr/bin/python3.11", "python3 -mgunicorn app:app", "gunicorn"),
        ("/usr/bin/python3.11", "python3 -m shop.__main__", "shop"),
        ("/usr/bin/python3.11", "python3 /srv/shop/__main__.py", "shop"),
        ("/usr/bin/python3.11", "/usr/bin/python3 /usr/local/bin/celery worker", "celery"),
        ("/usr/bin/python3.11", "python3 -c pass app.py", "python3.11"),
        ("/usr/bin/python3.11", "python3 -uc pass", "python3.11"),
        ("/usr/bin/python3.11", "python3 -", "python3.11"),
        ("/usr/bin/python3.11", "python3", "python3.11"),
        ("/usr/bin/python3.11", "python3 -m", "python3.11"),
        ("/usr/bin/python3.11", "python3 -- -odd.py", "-odd"),
        ("/usr/bin/python3.11", "python3 --check-hash-based-pycs=always a.py", "a"),
        ("/usr/bin/python3.13t", "python a.py", "a"),
        ("/usr/bin/pypy3", "pypy3 a.py", "a"),
        ("/usr/bin/node", "node --inspect=9229 --require ./tracing.js dist/server.mjs", "server"),
        ("/usr/bin/node", "node -r dotenv/config server.js", "server"),
        ("/usr/bin/node", "node --eval 1", "node"),
        ("/opt/jdk/bin/java", "java -Xmx1g -Da=b -cp a.jar:b.jar com.example.Main x", "com.example.Main"),
        ("/opt/jdk/bin/java", "java -javaagent:x --add-opens a/b=ALL -jar /srv/shop-1.2.jar", "shop-1.2"),
        ("/opt/jdk/bin/java", "java -p mods -m shop/com.example.Main", "com.example.Main"),
        ("/opt/jdk/bin/java", "java -version", "java"),
        ("/usr/bin/ruby3.1", "ruby -W0 -I lib -rbundler/setup bin/rails server", "rails"),
        ("/usr/bin/ruby3.1", "ruby -e 1", "ruby3.1"),
        ("/usr/bin/perl", "perl -w -I lib worker.pl", "worker"),
        ("/usr/bin/perl5.36-x86_64-linux-gnu", "perl5.36 worker.pl", "perl5.36-x86_64-linux-gnu"),
        ("/usr/bin/php8.2", "php -d memory_limit=1G -S 127.0.0.1:80 router.php", "router"),
        ("/usr/bin/php8.2", "php -f cron.php", "cron"),
        ("/usr/bin/dash", "sh -e /opt/run.sh", "run"),
        ("/usr/bin/bash", "bash -o pipefail --rcfile x /opt/start", "start"),
        ("/usr/bin/bash", "bash -lc nginx", "bash"),
        ("/usr/bin/bash", "bash /dev/fd/3", "bash"),
        ("/srv/fresh", "fresh -c x", "fresh"),
    ],
)  # fmt: skip
def test_from_program_names_what_runs(exe, command, expected):
    assert from_program(exe, command.split()) == expected


@given(st.lists(st.text(max_size=12), max_size=8), st.sampled_from(["python3", "node", "java", "php", "bash", "nginx"]))
def test_from_program_any_arguments_give_a_name(arguments, program):
    assert from_program(f"/usr/bin/{program}", [program, *arguments])
