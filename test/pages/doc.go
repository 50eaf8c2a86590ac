// Package pages opens what the program writes for browsers in one: Debian's
// Chromium, without a window and without a network.
//
//	kaniko-build graph, apply --report ─> file ─ chromium + a script of the test ─> what it found, as JSON
//
// The script is added to a copy of the page; it clicks and measures as a person
// would, and what it finds is judged in Go.
package pages
