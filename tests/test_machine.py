from gmp_plugin import machine
from gmp_plugin.machine import describe_cpu, describe_machine


def test_generations_of_a_processor_can_be_told_apart(tmp_path, monkeypatch):
    """A hypervisor names them all alike; of several cores the first one counts."""
    core = "processor\t: {}\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\n\n"
    (tmp_path / "cpuinfo").write_text(core.format(0, 17) + core.format(1, 18))
    read = machine._fields
    monkeypatch.setattr(machine, "_fields", lambda file: read(str(tmp_path / "cpuinfo")))
    assert describe_cpu() == "AMD EPYC (family 25, model 17)"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU architecture: 8\n")  # as on ARM
    assert describe_cpu() and "family" not in describe_cpu()


def test_machine_is_described_without_names_of_hosts():
    found = describe_machine("cpu")
    assert set(found) == {"system", "cpu", "cores", "memory_gb"} and found["cores"] >= 1
