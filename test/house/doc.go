// Package house checks the rules of the house that no compiler knows: who may
// import whom, who may print, end the process or change it as a whole, and that
// every package says what it is.
//
//	source files ─parse─> packages, imports, calls ─┬─> rules
//	ARCHITECTURE.md ─> table of imports ────────────┴─> equal to the code
//
// It holds tests only. `go test ./test/house -update` rewrites the table.
package house
