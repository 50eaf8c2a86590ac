package dockerfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/schema/diag"
)

// FuzzParse sees that no text makes us panic, that positions lie inside the
// file, and that a program survives JSON.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "\ufeffFROM scratch\r\nRUN <<E\r\nE\r\n", "FROM busybox\nENV A=${B:?c}\n", "# escape=`\nARG A\nFROM ${A:-copies}\nRUN --mount=type=cache,target=x y `\n",
		"FROM scratch AS a\nONBUILD COPY --from=a / /\nFROM a\nEXPOSE 1-$X\n", "RUN x", "FROM a\nCOPY --parents --chmod=7 <<A /\nA", "# check=error=true\nfrom Scratch"} {
		f.Add(s)
	}
	cases, _ := filepath.Glob(filepath.Join("..", "..", "..", "test", "conformance", "cases", "*", "Dockerfile"))
	for _, name := range cases {
		if text, err := os.ReadFile(name); err == nil {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		inside := func(p diag.Pos) {
			if p.Line == 0 {
				return
			}
			if p.File != "Dockerfile" || p.Line > len(lines) || p.Col < 1 || p.Col > len(lines[p.Line-1])+1 {
				t.Errorf("position %v is outside of %q", p, text)
			}
		}
		p, err := resolve(t, text, dockerfile.Options{AllStages: true, Args: args("A=b", "SOURCE_DATE_EPOCH=1"), Contexts: []string{"c"}})
		if err != nil && problems(err) == nil {
			t.Errorf("%v is not told as a problem", err)
		}
		for _, one := range problems(err) {
			inside(one.Pos)
		}
		for _, w := range p.Warnings {
			inside(w.Pos)
		}
		for _, s := range p.Stages {
			inside(s.Pos)
			for _, step := range s.Steps {
				inside(step.Pos)
			}
		}
		if err == nil && utf8.ValidString(text) {
			checkJSON(t, p)
		}
	})
}
