import threading

from ebbflow.store.gate import Gate


def test_reading_many_at_once():
    gate = Gate()
    with gate.reading(), gate.reading(), gate.alone(0.001) as alone:
        assert not alone


def test_alone_when_nobody_reads():
    gate = Gate()
    with gate.reading():
        pass
    with gate.alone(0) as alone:
        assert alone


def test_alone_waits_for_the_last_reader_and_holds_new_ones_back():
    gate, order = Gate(), []
    reading, waiting = threading.Event(), threading.Event()

    def read_first():
        with gate.reading():
            reading.set()
            waiting.wait(5)
            order.append("first")

    def read_second():
        with gate.reading():
            order.append("second")

    first, second = threading.Thread(target=read_first), threading.Thread(target=read_second)
    first.start()
    reading.wait(5)
    threading.Timer(0.01, waiting.set).start()
    with gate.alone(5) as alone:
        second.start()
        order.append("alone" if alone else "not alone")
    first.join(5)
    second.join(5)
    assert order == ["first", "alone", "second"]
