// Package sandbox runs hostile programs without privilege.
//
// Words: a rung is a kind of isolation this machine allows; an id map says
// which ids of the host stand behind ids 0 to 65535 in a build; a node is the
// process that builds one image, in namespaces of its own; a RUN is one
// command of a Dockerfile, in namespaces below those of its node.
//
//	Probe ──> Report ──> Rung, IDMap
//	                         │
//	StartNode ── fork, map ──┴─> node: tmpfs root, /store, /proc, /dev     [user mnt pid ipc uts cgroup]
//	    │ files (sockets)          │
//	    └──────────────────────────┤ Run ── thread: mounts ── fork ──> RUN  [mnt pid ipc uts (net)]
//	                               │                                   pivot_root, capabilities, seccomp, exec
//	                               ├─ Process: files, and commands beside a RUN that goes on
//	                               └─ Result: exit code, owners
//
// Promises: a RUN sees its root file system and nothing of the store, of the
// host's files, environment or processes, or of other nodes. It holds Docker's
// default capabilities within its user namespace and runs under Docker's
// default seccomp profile; sudo and su work. No mount lands outside the root,
// whatever links the root holds. When Run returns, no process of the step and
// no mount of it is left. When a node ends, by whatever signal, so does
// everything in it; a node ends with the process that started it.
//
// Not promised: the network of the host is shared unless a step asks for none.
// No device node is made: the kernel lets nobody in a user namespace do it. A
// supervisor makes a file that stands for one, which stays an empty file to who
// opens it. Where there is only one id, it plays the others, too. What it
// answers and what not is listed at type supervisor.
package sandbox
