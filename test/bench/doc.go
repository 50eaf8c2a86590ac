// Package bench writes the workloads that the program is measured by, each a
// small repository with Dockerfiles, contexts and a manifest, and measures them.
//
//	Workload ─Write─> directory ─apply─> cold, no-op, one file, library, comment changed: time, largest process
//	                             └executor image, in a default container─> cold; cold and warm with a cache: time, its cgroup's memory
//
// A cold build also says how much of its bases was pulled and unpacked. Times are
// medians and stand beside the budgets that they have, which are for an
// idle machine; those in containers beside the time of a peer that takes turns. Two writes of a workload are equal byte for byte.
package bench
