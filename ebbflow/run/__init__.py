"""Everything at once on one machine: `ebbflow run`.

    ebbflow run ─ supervisord ─┬─ kafka ─ java            each part: its log in DATA/logs, started again when it
       │          (Supervisor) ├─ store                   ends, stopped by SIGTERM and then SIGKILL
       │                       ├─ processor, sink
       │                       ├─ producer
       │                       └─ shop, nginx, load       the demo; only without targets
       └─ top, or plain lines

Supervisor (supervisord.org) is the process manager: it starts, restarts with backoff, stops and logs. What it does not
do is done here: the order by readiness, one line for people per step, a deadline for the whole stop, and telling what
went wrong. It is asked over a Unix socket in the data directory, which is also how `ebbflow down` finds it.

(Honcho was considered: its Manager starts all at once, ends all when one ends, and neither restarts nor orders.)

Nothing stays behind, whoever is killed: parts end with supervisord (parent-death signal), supervisord ends with us
unless it runs in the background, and processes whose parent was killed fall to a subreaper, which ends them.

    parts       what is run: commands, ranks, settings for all        (pure)
    words       what a log's line means to people                     (pure)
    history     what changes of the parts' states mean                (pure)
    supervision supervisord: its configuration, its socket
    probes      whether a part is ready
    logs        what the logs said since the last look
    totals      spans and losses so far, from the parts' /metrics
    board       lines for people, also below a live screen
    conductor   start in order, then look after all
    stopping    stop in order, in time
"""
