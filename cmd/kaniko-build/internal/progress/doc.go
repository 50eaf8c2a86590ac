// Package progress shows what happens in a run.
//
//	executor ─ events of steps ──┐
//	                             ├─> Event ─> View: Plain, Interleaved, JSON, Quiet, tty.View, report.Recorder, Logs
//	run ─ events of nodes ───────┘
//
// A view takes events from many goroutines and never makes them wait for a person
// or a slow disk longer than one write. What others wrote passes logtext before
// it is printed. The package decides nothing: a run is the same with any view.
package progress
