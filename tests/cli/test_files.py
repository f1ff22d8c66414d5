"""Results among files."""

import os

import pytest
from support.made_results import made_result

from kornia_lightning_probe.cli.files import find_results, one_result
from kornia_lightning_probe.cli.telling import CommandError


def test_of_each_run_the_newest_is_found_by_its_number_not_its_letters(tmp_path):
    for run in ("version_10", "version_9"):
        for epoch in (-1, 9, 10):
            path = tmp_path / run / "probe" / f"fit-epoch={epoch}-step={max(epoch, 0)}.json"
            made_result(epoch=epoch).to_json(path)
            os.utime(path, (20 - epoch, 20 - epoch))
    found = find_results(tmp_path)
    assert [one.path.relative_to(tmp_path).parts[0] for one in found] == ["version_9", "version_10"]
    assert [one.result.epoch for one in found] == [10, 10]
    with pytest.raises(CommandError, match=r"2 runs, name one: .*version_9"):
        one_result(tmp_path)


def test_other_json_files_are_passed_over_and_a_torn_result_is_named(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"lr": 1}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "fit-epoch=3-step=9.json").write_text('{"format": 2, "tab')
    made_result(epoch=2).to_json(tmp_path / "fit-epoch=2-step=6.json")
    assert one_result(tmp_path).result.epoch == 2
    assert "skipped" in (said := capsys.readouterr().err)
    assert "fit-epoch=3-step=9.json" in said


def test_a_folder_without_results_is_an_error_that_says_how_to_get_one(tmp_path):
    with pytest.raises(CommandError, match="no probe result in this folder or those in it"):
        find_results(tmp_path)
