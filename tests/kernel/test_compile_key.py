from types import SimpleNamespace

from ebbflow.kernel.compile_key import btf_hash, compile_key, machine_key


def test_compile_key_changes_with_each_part_and_with_where_it_ends():
    keys = [
        compile_key("text", ["-DA=1"], "machine"),
        compile_key("text2", ["-DA=1"], "machine"),
        compile_key("text", ["-DA=2"], "machine"),
        compile_key("text", ["-DA=1", ""], "machine"),
        compile_key("text", ["-DA=", "1"], "machine"),
        compile_key("text", ["-DA=1"], "other"),
    ]
    assert len(set(keys)) == 6
    assert keys[0] == compile_key("text", ["-DA=1"], "machine")


def test_btf_hash_of_no_file_is_empty(tmp_path):
    btf_hash.cache_clear()
    assert btf_hash(tmp_path / "vmlinux") == ""
    (tmp_path / "vmlinux").write_bytes(b"x")
    btf_hash.cache_clear()
    assert len(btf_hash(tmp_path / "vmlinux")) == 32
    btf_hash.cache_clear()


def test_machine_key_names_bcc():
    assert " 0.26.0" in machine_key(SimpleNamespace(__version__="0.26.0"))
