// Package prune decides which things of a store go. A policy is what the user
// wants; a verdict is what becomes of one thing, and why.
//
//	store.Things ─┐
//	Policy ───────┼─ Choose ─> verdicts, in the order in which things may go
//	sessions ─────┘
//
// Choose is pure. The last use of a thing is that of whatever needs it, so that
// nothing goes before what would be worth nothing without it. What a process that
// runs has used stays, and so does what a named image that stays consists of.
// Taking things away without harm to those who look for them at that moment is
// store.Trash's part.
package prune
