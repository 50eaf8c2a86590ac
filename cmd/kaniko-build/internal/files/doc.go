// Package files reads what users have written and writes what they have asked for.
//
//	name ── Read ──> bytes      no more than is allowed, and never a wait for a pipe that nobody writes
//	bytes ── Whole ──> name     complete or as it was; through links, and into devices in place
//
// A name is a path as users write it, and errors call the file by it.
package files
