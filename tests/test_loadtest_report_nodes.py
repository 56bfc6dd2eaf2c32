"""What a report tells of several nodes: a row for each, with what is wrong in it, and who used how much CPU."""

from __future__ import annotations

from loadtest import axes, report_charts
from loadtest.report import render
from loadtest.report_nodes import nodes
from tests.loadtest_samples import of_two_nodes, result
from tests.test_loadtest_report import Words


def test_where_there_is_one_node_there_is_nothing_to_tell() -> None:
    assert nodes(result()) == ""
    assert "The nodes" not in Words(render(result())).text


def test_each_node_has_its_books_its_account_and_its_processes() -> None:
    page = Words(render(of_two_nodes())).text
    owed = f"{of_two_nodes()['nodes'][0]['expected']:,}"
    for number in (1, 2):
        assert f"{number} 101 200 {owed} {owed} 0 0 0 0 0 0" in page
        assert f"node {number}, supervisor (pid 71) 0.5 s 6" in page
        assert f"node {number}, worker (pid 72) 2 s 25" in page
    assert "Redis (pid 73) 0.25 s 3" in page


def test_a_node_with_something_wrong_stands_out() -> None:
    assert 'class="wrong"' not in nodes(of_two_nodes())
    assert nodes(of_two_nodes(lost=3)).count('class="wrong"') == 1
    account = of_two_nodes()["nodes"][1]["server"]
    assert nodes(of_two_nodes(server={**account, "agrees": False})).count('class="wrong"') == 1


def test_a_node_that_told_nothing_is_dashes() -> None:
    account = {"delta": None, "agrees": None}
    text = Words(str(nodes(of_two_nodes(server=account)))).text
    assert f"2 {axes.NOTHING} {axes.NOTHING}" in text


def test_the_cpu_chart_has_a_line_for_each_node_and_the_broker() -> None:
    names = [series.name for series in report_charts.cpu(of_two_nodes()).series]
    assert names == ["node 1", "node 2", "broker", "generator"]
    many = of_two_nodes()
    for row in many["timeline"]:
        row["nodes_cpu"] = {str(number): 10.0 * number for number in range(1, 5)}
        row["broker_cpu"] = None
    chart = report_charts.cpu(many)
    assert [series.name for series in chart.series] == ["busiest of 4 nodes", "generator"]
    assert chart.series[0].points[0][1] == 40.0
