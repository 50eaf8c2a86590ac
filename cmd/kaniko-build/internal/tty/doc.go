// Package tty shows a run live on a terminal: what runs, how far it is, what
// failed; what is finished is a number.
//
//	events ─> board ─ frame(size, time) ─> bubbletea ─ differences ─> terminal
//	            └─ warnings ─ Close ────────────────────────────────────┘
//
// The picture fits any terminal from 60 columns and 15 lines up; a smaller one
// shows its upper left part. It appears when a run takes longer than a moment
// and goes away at its end: what stays on the screen is what commands print.
//
// Nothing is read from the terminal, so that Ctrl-C and Ctrl-Z are the signals
// they always are; a Stopper has the latter for all that have the terminal. While the
// picture is there typed characters are not echoed; Close, Leave and being stopped put
// everything as it was found.
package tty
