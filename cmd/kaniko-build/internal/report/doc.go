// Package report writes a run, or only its graph, as one HTML page that needs
// nothing else: no network, no other file.
//
//	events ─ Recorder ─> Run ─┐
//	           graph.Look ────┴─ Page ─> out.html: graph, timeline, images, steps, logs
//
// The page carries its data as JSON and draws it with plain JavaScript; a policy
// in its head lets it load nothing. It follows the reader's choice of light or
// dark. Text of builds is shown as text, never as markup.
package report
