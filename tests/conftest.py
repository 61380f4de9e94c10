import pytest
import torch


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def fixed_run(tmp_path_factory):
    """A fixed-delay run as `echospan train fixed` leaves it."""
    from echospan.cli import main

    folder = tmp_path_factory.mktemp("runs") / "fixed"
    with pytest.raises(SystemExit) as end:
        main(["train", "fixed", "--out", str(folder), "--stream", "1000", "--polish", "0"])
    assert end.value.code == 0
    return folder
