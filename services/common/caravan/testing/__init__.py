"""What a service's tests have in place of Kafka, an object store and a link: no process, nothing to wait for.

`kafka` is a topic and a producer in memory, `stores` notes and fails what is asked of a store, `links` is a
connection that can be cut, `waiting` runs loops and waits for what they do. Nothing here is imported by what
runs, and no image has it.
"""
