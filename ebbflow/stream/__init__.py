"""Runs pure processors on Kafka so that a crash at any point loses nothing and repeats only identical bytes.

    Kafka -> Faust agent -> Stage -> Partition (processor, state) -> Outbox -> Kafka
                              |                                        |
                              +---- checkpoint (after outputs) --------+

    worker       the process: signals, health, waiting for Kafka
    runner       the only file that knows Faust: one app a processor
    stage        one processor on all its partitions: order of outputs, checkpoints and acknowledgements
    lanes        its partitions, with what waits for their next checkpoint
    partition    one input partition: the processor's instance, its state, what is bad
    recovery     partitions from checkpoints, and from records that are read again
    outbox       outputs until Kafka has them
    checkpoint   state on the compacted topic
    history      Kafka read outside the consumer group
    metrics      what is counted
    memory       Kafka in memory, for tests and offline runs

The rule: outputs of all records below an offset are acknowledged by Kafka; then a checkpoint with that offset and the
state is acknowledged; only then are the inputs acknowledged to Faust, which commits them. Committed offsets are merely
where reading begins; the checkpoint says what has been done: records below it are skipped, and where reading begins
above it, what lies between is read and processed first. Records go through the processor one by one, so outputs never
depend on what arrived together. After a crash everything since the last checkpoint is done again: same state, same
records, same bytes.

Bad records become dead letters and leave the state as it was. A `ValidationError` promises that; after any other
exception the state is built again from the last checkpoint and the records since. When most of the last
`stream.bad_window` records of a partition are bad, the stage stops: everything before the record that was too much is
checkpointed with the window itself, so a restart stops at the same record until it can be read, or the limit is lifted.
"""
