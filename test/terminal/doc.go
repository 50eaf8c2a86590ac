// Package terminal looks at the live view as a person does: the program runs in
// a real terminal, tmux, keys are sent to it and the screen is read.
//
//	tmux ─ bash ─ kaniko-build apply ─ RUN wget ─> gate, which answers when the test says so
//	  └─ capture-pane ─> what a person sees
//
// Nothing sleeps: steps wait at the gate, and the test waits for what the screen
// is to show.
package terminal
