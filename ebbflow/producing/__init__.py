"""What producers are made of, and what runs them.

runner            the loop: drain, publish, keep the books, stop; several features in one process
shared            what the features of a process share: targets, processes, origin
event_producer    the base of features whose rows are struct event_row; stack_producer: of those with call stacks
buckets, batching rows into RawBatches by process bucket
*_dictionary, frames, naming     what rows refer to: processes, connections, addresses
publisher         a bounded buffer before Kafka; metrics, self_report: what a producer says of itself
executions, cgroup_paths, allocators, followed, cpu_profile      what single features need beside their file
"""
