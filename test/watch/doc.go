// Package watch watches with the program as people do: files are saved, and what is
// built for it is counted.
//
//	kaniko-build watch --progress json ─ events ─> session ─ counts ─> the test
//	      ▲                                          │
//	      └────────────── files that are saved ◄─────┘
//
// Nothing sleeps. That a change builds nothing is seen by another change after it,
// of a file of the target "mark": what is told before it counts.
package watch
