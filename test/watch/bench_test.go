package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// quiet is the quiet period of the benchmarks, the default one.
const quiet = 300 * time.Millisecond

// BenchmarkSave measures from the close of a saved file to the new image in the store,
// without the quiet period, in a context of 20,000 files: of a COPY of some of them, and of
// all. Numbers are medians.
func BenchmarkSave(b *testing.B) {
	for _, c := range []struct {
		name, copies string
		budget       time.Duration
	}{
		{"some of 20,000 files", "COPY d0 /app\n", 300 * time.Millisecond},
		{"all of 20,000 files", "COPY . /app\n", 300 * time.Millisecond},
	} {
		b.Run(c.name, func(b *testing.B) {
			files := map[string]string{"kaniko-build.yaml": "version: 1\ntargets:\n  app: {context: app, dockerfile: ../Dockerfile, image: example.test/app}\n", "Dockerfile": "FROM scratch\n" + c.copies}
			for i := range 20_000 {
				files[fmt.Sprintf("app/d%d/f%d", i%200, i)] = fmt.Sprintf("file %d\n", i)
			}
			s := start(b, files)
			measure(b, s, c.budget, filepath.Join(s.dir, "app/d0/f0"), "node-done app", "watch watching")
		})
	}
}

// BenchmarkRun measures from the close of a saved file to the restarted process of --run.
func BenchmarkRun(b *testing.B) {
	s := prepare(b, served(b))
	s.run("--run", "api", "--", "echo up; exec busybox sleep 1000")
	s.says("up")
	measure(b, s, 500*time.Millisecond, filepath.Join(s.dir, "api/text"), "log api", "") // it speaks last
}

// measure saves a file again and again and waits for an event each time, and for the
// last of it.
func measure(b *testing.B, s *session, budget time.Duration, file, event, last string) {
	var took []time.Duration
	n := 0
	for b.Loop() {
		n++
		if err := os.WriteFile(file, fmt.Appendf(nil, "save %d", n), 0o644); err != nil {
			b.Fatal(err)
		}
		saved := time.Now()
		took = append(took, s.until(event).seen.Sub(saved)-quiet)
		if last != "" {
			s.until(last)
		}
	}
	slices.Sort(took)
	m := took[len(took)/2]
	b.ReportMetric(float64(m.Microseconds())/1000, "ms-above-quiet")
	rig.Report(b, "watch: %s: %d ms above the quiet period (median of %d, %d to %d)", b.Name(), m.Milliseconds(), len(took), took[0].Milliseconds(), took[len(took)-1].Milliseconds())
	if budget > 0 && m > budget {
		b.Errorf("a save takes %v above the quiet period; the budget is %v", m, budget)
	}
}
