package bugreports

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ARG does not leak between stages that are not built on each other, is
// inherited by those that are, and the later of ARG and ENV wins.
func (r reports) BR25ArgLeaksBetweenStages(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": `
FROM busybox AS one
ARG COLOR=red
ENV MODE=base
RUN true
FROM busybox AS two
RUN echo "[$COLOR]" > /c
FROM one
ARG MODE
COPY --from=two /c /c
RUN echo "$MODE $COLOR" > /m
ENV MODE=again
RUN echo "$MODE" > /again
`})
		d := l.build("--build-arg", "MODE=cli")
		l.text(d, "/c", "[]\n")
		l.text(d, "/m", "cli red\n")
		l.text(d, "/again", "again\n")
		l.text(l.build(), "/m", "base red\n")
	})
}

// Stages are found by name in any case, by number, and by variable, without a
// registry being asked.
func (r reports) BR27StageReferences(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": `
ARG PICK=Base
FROM busybox AS Base
RUN echo b > /b
FROM ${PICK} AS last
COPY --from=0 /b /n
COPY --from=BASE /b /u
RUN --mount=from=bAsE,source=/b,target=/m cat /m > /c
`})
		d := l.build()
		for _, p := range []string{"/n", "/u", "/c"} {
			l.text(d, p, "b\n")
		}
		if asked := l.mirror.Requests(l.T, "library/base"); len(asked) > 0 {
			l.Errorf("the registry was asked for a stage: %s", asked[0])
		}
	})
}

// ENTRYPOINT drops a CMD that came from the base, not one of its own stage.
func (r reports) BR28EntrypointClearsAnInheritedCmd(t *testing.T) {
	r.under(t, func(l *lab) {
		cases := []struct {
			name, rest string
			cmd        []string
		}{
			{"inherited", "FROM base\nENTRYPOINT [\"e\"]\n", nil},
			{"own before", "FROM base\nCMD [\"b\"]\nENTRYPOINT [\"e\"]\n", []string{"b"}},
			{"own after", "FROM base\nENTRYPOINT [\"e\"]\nCMD [\"b\"]\n", []string{"b"}},
			{"kept without", "FROM base\nENV X=1\n", []string{"a"}},
		}
		for _, c := range cases {
			l.write(map[string]string{"Dockerfile": "FROM busybox AS base\nCMD [\"a\"]\n" + c.rest})
			if d := l.build(); !slices.Equal(d.Config.Cmd, c.cmd) {
				l.Errorf("%s: CMD is %q, want %q", c.name, d.Config.Cmd, c.cmd)
			}
		}
	})
}

// .dockerignore is about the context alone, in every stage, and ** with ! works.
func (r reports) BR30DockerignoreScope(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			".dockerignore": "*\n", "one": "context\n",
			"Dockerfile": "FROM busybox AS p\nRUN echo 1 > /one\nFROM busybox\nCOPY --from=p /one /one\n",
		})
		l.text(l.build(), "/one", "1\n")
	})
	t.Run("negation", func(t *testing.T) {
		r.under(t, func(l *lab) {
			l.write(map[string]string{
				".dockerignore":  "**/gen\n!x/y/gen/keep\n",
				"x/y/gen/keep":   "k\n",
				"x/y/gen/drop":   "d\n",
				"gen/top":        "t\n",
				"x/other":        "o\n",
				"Dockerfile":     "FROM busybox AS first\nCOPY . /s\nFROM busybox\nCOPY . /s\nRUN true\n",
				"unrelated/file": "1\n",
			})
			check := func() string {
				d := l.build()
				l.text(d, "/s/x/y/gen/keep", "k\n")
				l.gone(d, "/s/x/y/gen/drop")
				l.gone(d, "/s/gen")
				return l.layer(d, 2)
			}
			before := check()
			l.write(map[string]string{"x/y/gen/drop": "another\n", "gen/new": "n\n"}) // ignored, so no change
			if after := check(); after != before {
				l.Errorf("an ignored file is part of the key")
			}
		})
	})
}

// A secret is there for its step and nowhere else: not in a layer, the
// history, the log, the metadata or the store.
func (r reports) BR31SecretOutlivesItsStep(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": `
FROM busybox
RUN rm -rf /run/secrets /creds
RUN --mount=type=secret,id=t,target=/creds/t test -s /creds/t
RUN --mount=type=secret,id=t grep -q SEKRET- /run/secrets/t && cat /run/secrets/t
RUN --mount=type=secret,id=t,env=TOKEN test -n "$TOKEN" && echo "$TOKEN" > /dev/null
RUN test ! -s /creds/t && ! grep -rq SEKRET- /etc /home /root /run /tmp /var
RUN ! env | grep -q SEKRET-
`})
		value := fmt.Sprintf("SEKRET-%016x", rand.Uint64())
		file := filepath.Join(l.out, "secret")
		l.must(os.WriteFile(file, []byte(value+"\n"), 0o600))
		meta := filepath.Join(l.out, "iid")
		l.state = filepath.Join(l.out, "state") // where it can be looked into
		for range 2 {
			o, out := l.run(l.state, "--secret", "id=t,src="+file, "--iidfile", meta)
			if o.Code != 0 {
				l.Fatalf("exit code %d\n%s", o.Code, o.Tail(30))
			}
			if strings.Contains(o.All(), value) {
				l.Error("the output holds the secret")
			}
			d := describe(l.T, out)
			l.gone(d, "/creds")
			l.gone(d, "/run/secrets")
			unpack := filepath.Join(l.out, "unpacked")
			l.must(os.MkdirAll(unpack, 0o755))
			if out, err := exec.Command("tar", "-xf", out, "-C", unpack).CombinedOutput(); err != nil {
				l.Fatalf("unpack: %v\n%s", err, out)
			}
			// Layers are compressed: look into them too.
			script := `cd "$1" && { grep -rlF -e "$2" "$3" "$4" . ; for f in blobs/sha256/*; do gzip -dc "$f" 2>/dev/null | grep -qF -e "$2" && echo "$f"; done; true; }`
			found, err := exec.Command("sh", "-c", script, "sh", unpack, value, l.state, meta).Output()
			l.must(err)
			if len(found) > 0 {
				l.Errorf("the secret is in: %s", found)
			}
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != value+"\n" {
			l.Errorf("the source of the secret is %q, %v", b, err)
		}
	})
}
