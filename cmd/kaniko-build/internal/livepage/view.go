package livepage

// snapshot is all that a browser needs to know at first. Times are milliseconds since
// 1970, durations milliseconds.
type snapshot struct {
	Title   string     `json:"title"`
	Picture int        `json:"picture"` // which one of the graph; another number, another picture
	Phase   phaseView  `json:"phase"`
	Nodes   []nodeView `json:"nodes"` // parents first
	Builds  []*build   `json:"builds"`
	Note    *note      `json:"note,omitempty"` // the last
}

// phaseView is what the engine does: watch.State's phase.
type phaseView struct {
	Phase   string `json:"phase"`
	Problem string `json:"problem,omitempty"`
}

// nodeView is what is known of one node.
type nodeView struct {
	ID     string   `json:"id"`
	Group  string   `json:"group,omitempty"`
	Needs  []string `json:"needs,omitempty"`
	State  string   `json:"state"`          // waiting, queued, building, built, cached, failed or skipped
	Step   string   `json:"step,omitempty"` // the last that began, while it is built
	Cause  string   `json:"cause,omitempty"`
	Since  int64    `json:"since,omitempty"` // of its state
	Took   float64  `json:"took,omitempty"`  // its last build
	Builds int      `json:"builds"`
	Error  string   `json:"error,omitempty"`
	Digest string   `json:"digest,omitempty"`
	Names  []string `json:"names,omitempty"`
	Size   int64    `json:"size,omitempty"` // bytes, compressed
}

// build is what one change asked for.
type build struct {
	Number int            `json:"number"`
	Time   int64          `json:"time"`
	Text   string         `json:"text"`
	Total  int            `json:"total"` // nodes
	Counts map[string]int `json:"counts"`
	Nodes  []string       `json:"nodes"`          // as many as are listed
	Took   float64        `json:"took,omitempty"` // 0: it goes on
	left   int            // nodes that are not finished
}

// note is a sentence about the watching.
type note struct {
	Time int64  `json:"time"`
	Text string `json:"text"`
}
