"""What a task costs, measured from one to many: waiting, running, nodes, queues, servers, bytes. See README.md."""
