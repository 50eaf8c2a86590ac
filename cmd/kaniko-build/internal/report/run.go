package report

import "time"

// Run is what a page shows. Times are milliseconds since Started.
type Run struct {
	Title    string    `json:"title"`
	Started  time.Time `json:"started,omitzero"` // zero: nothing ran, the page is a graph
	Elapsed  float64   `json:"elapsed,omitempty"`
	Outcome  string    `json:"outcome,omitempty"` // done, failed or interrupted
	Jobs     int       `json:"jobs,omitempty"`    // steps that may run at once
	Nodes    []*Node   `json:"nodes"`             // parents first
	Critical []string  `json:"critical"`          // the chain of nodes that took longest
	Slots    int       `json:"slots,omitempty"`   // steps that ran at once, at most
	Cut      bool      `json:"cut,omitempty"`     // logs were too long for one page
}

// Node is one node of a Run.
type Node struct {
	ID       string   `json:"id"`
	Group    string   `json:"group,omitempty"`
	Needs    []string `json:"needs,omitempty"`
	Reasons  []string `json:"reasons,omitempty"` // why it needs them, as far as that is known
	State    string   `json:"state,omitempty"`   // built, cached, failed, skipped, or running when the run ended; of a graph the class
	Note     string   `json:"note,omitempty"`    // of a graph
	Begin    float64  `json:"begin,omitempty"`
	End      float64  `json:"end,omitempty"`
	Steps    []*Step  `json:"steps,omitempty"`
	Digest   string   `json:"digest,omitempty"`
	Names    []string `json:"names,omitempty"`
	Size     int64    `json:"size,omitempty"` // bytes, compressed
	Layers   []Layer  `json:"layers,omitempty"`
	Error    string   `json:"error,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Step is one step of a node that was executed or looked up.
type Step struct {
	Stage string  `json:"stage,omitempty"`
	Step  int     `json:"step"`
	Of    int     `json:"of"`
	Text  string  `json:"text"`
	Pos   string  `json:"pos,omitempty"`
	State string  `json:"state"` // cached, done, failed or running
	Begin float64 `json:"begin,omitempty"`
	End   float64 `json:"end,omitempty"`
	Slot  int     `json:"slot,omitempty"` // which of the steps that run at once, from 1; 0 of a cached step
	Why   string  `json:"why,omitempty"`  // it ran: the first input that differs
	From  string  `json:"from,omitempty"` // it is cached: the cache outside that has it
	Log   string  `json:"log,omitempty"`

	output output
}

// Layer is one layer of an image, those of the base first.
type Layer struct {
	Size int64  `json:"size"` // bytes, compressed
	Text string `json:"text,omitempty"`
}
