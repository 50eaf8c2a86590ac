package watch

import (
	"context"
	"fmt"
	"time"

	"kaniko-build/graph"
)

// copy brings files to where images run, those of nodes that are not built anyway. What
// cannot be copied is built.
func (e *Engine) copy(ctx context.Context, causes map[graph.ID]Cause) {
	site := e.site
	for _, id := range site.Graph().Order() {
		paths := e.copies[id]
		if _, built := causes[id]; built || len(paths) == 0 {
			continue
		}
		text := fmt.Sprintf("%s: %s", id, e.relative(paths[0]))
		if n := len(paths) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		e.syncing.Go(func() {
			e.order.Lock() // what is copied later is newer
			defer e.order.Unlock()
			err := site.Sync(ctx, id, paths)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				e.opts.Sink(Event{Kind: Held, Time: time.Now(), Text: fmt.Sprintf("%s: what changed cannot be copied, so it is built: %v", id, err), Nodes: []graph.ID{id}})
				select {
				case e.missed <- id:
				case <-ctx.Done():
				}
			default:
				e.opts.Sink(Event{Kind: Synced, Time: time.Now(), Text: text + " copied to where it runs", Nodes: []graph.ID{id}})
			}
		})
	}
	e.copies = nil
}
