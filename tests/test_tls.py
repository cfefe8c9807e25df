import pytest

from ebbflow.errors import ConfigError
from ebbflow.tls import client_context, read_pem


def test_client_context_without_files_verifies_with_the_system():
    context = client_context("otlp", None, None, None)
    assert context.check_hostname


def test_client_context_key_without_certificate_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="without a certificate"):
        client_context("otlp", None, None, tmp_path / "k.pem")


def test_client_context_broken_certificate_is_a_config_error(tmp_path):
    path = tmp_path / "c.pem"
    path.write_text("not PEM")
    with pytest.raises(ConfigError, match=r"\[otlp\] client certificate .*c\.pem") as caught:
        client_context("otlp", None, path, None)
    assert caught.value.hint == "name readable PEM files in [otlp]"


def test_read_pem_none_is_none():
    assert read_pem("otlp", None) is None


def test_read_pem_gives_the_bytes(tmp_path):
    path = tmp_path / "c.pem"
    path.write_bytes(b"PEM")
    assert read_pem("otlp", path) == b"PEM"


def test_read_pem_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        read_pem("otlp", tmp_path / "gone.pem")
