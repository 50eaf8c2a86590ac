// Package bugreports holds failures that people reported of other builders,
// each reduced to a small case, as a test named after it.
//
//	files ─> lab.build ─┬─ first, with the lab's state     ─┐
//	                    ├─ again, nothing changed           ├─> equal, or the test fails ─> Dump
//	                    └─ with a fresh state               ─┘
//
// Every case runs on the machine, under umask 022 and 077, and in Docker's default container of
// our debug image, where steps happen in the container's own root. Each report is an example of a kind,
// so most tests try the neighbours too.
package bugreports
