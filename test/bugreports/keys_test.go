package bugreports

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// Renaming a file in a copied directory changes the key; so do types, modes
// and empty directories.
func (r reports) BR01RenamedFileKeepsTheOldLayer(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			"Dockerfile": "FROM busybox\nCOPY parts/ /parts/\n",
			"parts/one":  "same\n", "parts/two": "same\n",
		})
		l.names(l.build(), "/parts", "one", "two")
		l.rename("parts/two", "parts/three")
		l.names(l.build(), "/parts", "one", "three")
		l.must(os.Remove(l.path("parts/three")))
		l.write(map[string]string{"parts/three/": ""})
		d := l.build()
		l.names(d, "/parts", "one", "three")
		l.mode(d, "/parts/three", "dir 0755 0:0")
		l.must(os.Remove(l.path("parts/three")))
		l.names(l.build(), "/parts", "one")
		l.must(os.Chmod(l.path("parts/one"), 0o600))
		l.mode(l.build(), "/parts/one", "file 0600 0:0")
		l.must(os.Remove(l.path("parts/one")))
		l.must(os.Symlink("same\n", l.path("parts/one")))
		if e, _ := l.build().Find("/parts/one"); e.Type != "symlink" {
			l.Errorf("/parts/one is a %s, want a symlink", e.Type)
		}
	})
}

// Values and names that spell each other's framing have keys of their own.
func (r reports) BR02TwoInputsOneKey(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": "FROM busybox\nARG P\nARG Q\nRUN echo \"$P|$Q\" > /pq\n"})
		pairs := [][2]string{{"1-Q=2", "3"}, {"1", "2-Q=3"}, {"1\nQ=2", "3"}, {"1", "2\nQ=3"}, {"", "|"}, {"|", ""}, {"1,Q=2", "3"}, {"1", "2,Q=3"}}
		for _, p := range pairs {
			l.text(l.build("--build-arg", "P="+p[0], "--build-arg", "Q="+p[1]), "/pq", p[0]+"|"+p[1]+"\n")
		}
	})
	t.Run("names", func(t *testing.T) {
		r.under(t, func(l *lab) {
			l.write(map[string]string{"Dockerfile": "FROM busybox\nCOPY t /t\n", "t/a": "x", "t/b": "y"})
			l.names(l.build(), "/t", "a", "b")
			for _, name := range []string{"a-b", "a=b", "a\nb", "a 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "a\x01b"} {
				l.must(os.RemoveAll(l.path("t")))
				l.write(map[string]string{"t/" + name: "x"})
				l.names(l.build(), "/t", name)
			}
		})
	})
}

// The body of a heredoc is part of the key of RUN.
func (r reports) BR03HeredocBodyNotInTheKey(t *testing.T) {
	r.under(t, func(l *lab) {
		for _, word := range []string{"alpha", "beta", "alpha"} {
			l.write(map[string]string{"Dockerfile": "FROM busybox\nARG UNUSED=1\nRUN <<S\necho " + word + " > /s\nS\n"})
			l.text(l.build(), "/s", word+"\n")
		}
	})
}

// Variables of COPY's destination and of its heredocs are part of the key.
func (r reports) BR04VariablesOfCopyNotInTheKey(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			"f": "f\n",
			"Dockerfile": `
FROM busybox
ARG V
COPY f /at/$V/f
COPY <<T /t
v=${V} raw=\${V}
T
COPY <<'T' /quoted
v=${V} raw=\${V}
T
`})
		for _, v := range []string{"a", "b"} {
			d := l.build("--build-arg", "V="+v)
			l.names(d, "/at", v, v+"/f")
			l.text(d, "/t", "v="+v+" raw=${V}\n")
			l.text(d, "/quoted", "v=${V} raw=\\${V}\n")
		}
	})
}

// What a step removed stays removed when the step comes from the cache.
func (r reports) BR06DeletedFileReturnsOnTheWarmBuild(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": "FROM busybox\nRUN mkdir /w && echo x > /w/gone\nRUN rm /w/gone\n"})
		l.names(l.build(), "/w")
		l.write(map[string]string{"Dockerfile": "FROM busybox\nRUN mkdir /w && echo x > /w/gone\nRUN rm /w/gone\nRUN ls /w > /list\n"})
		d := l.build() // the last step runs on cached ones
		l.names(d, "/w")
		l.text(d, "/list", "")
	})
}

// The content of a bind mount is part of the key, of a cache or tmpfs not.
func (r reports) BR08BindMountNotInTheKey(t *testing.T) {
	r.under(t, func(l *lab) {
		for _, mount := range []string{"source=cfg,target=/cfg", "type=bind,source=cfg,target=/cfg"} {
			l.write(map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=" + mount + " cat /cfg/v > /v\n"})
			for _, v := range []string{"one\n", "two\n"} {
				l.write(map[string]string{"cfg/v": v, "other": v})
				d := l.build()
				l.text(d, "/v", v)
				l.gone(d, "/cfg")
			}
		}
	})
	t.Run("cache", func(t *testing.T) {
		r.under(t, func(l *lab) {
			l.write(map[string]string{"Dockerfile": `
FROM busybox
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t touch /t/x && echo run >> /c/log && wc -l < /c/log > /n
`})
			first := l.made(l.state)
			again := l.made(l.state)
			l.text(first, "/n", "1\n")
			l.text(again, "/n", "1\n") // not run again, though the cache has another content now
		})
	})
}

// A file with the same size and time but another content is another file.
func (r reports) BR09SameSizeSameTimeNewContent(t *testing.T) {
	r.under(t, func(l *lab) {
		epoch := time.Unix(0, 0)
		l.write(map[string]string{"Dockerfile": "FROM busybox\nCOPY f /f\n"})
		for _, v := range []string{"1", "2", "3"} {
			l.must(os.WriteFile(l.path("f"), []byte(v), 0o644)) // the same inode
			l.must(os.Chtimes(l.path("f"), epoch, epoch))
			l.text(l.build(), "/f", v)
		}
		for _, v := range []string{"4", "5"} { // another inode, renamed into place
			l.must(os.WriteFile(l.path("g"), []byte(v), 0o644))
			l.must(os.Chtimes(l.path("g"), epoch, epoch))
			l.rename("g", "f")
			l.text(l.build(), "/f", v)
		}
	})
}

// Labels are no part of any key, neither those of the command line nor those
// of a parent image.
func (r reports) BR10LabelBustsUnrelatedCache(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": "FROM busybox AS a\nLABEL from=file\nRUN cat /proc/sys/kernel/random/uuid > /1\nFROM a\nRUN cat /proc/sys/kernel/random/uuid > /2\n"})
		one := l.made(l.state, "--label", "rev=1")
		two := l.made(l.state, "--label", "rev=2")
		for i := 1; i <= 2; i++ {
			if l.layer(one, i) != l.layer(two, i) {
				l.Errorf("another label made RUN %d run again", 3-i)
			}
		}
		if got := two.Config.Labels["rev"]; got != "2" {
			l.Errorf("label rev is %q, want 2", got)
		}
		if one.Config.Labels["from"] != "file" {
			l.Errorf("labels are %v", one.Config.Labels)
		}
	})
	t.Run("parent", func(t *testing.T) {
		r.under(t, func(l *lab) {
			reg := rig.StartRegistry(l.T)
			rig.Write(l.T, l.dir, map[string]string{
				"base/Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /1\n",
				"kid/Dockerfile":  "FROM " + reg.Addr + "/base\nRUN cat /proc/sys/kernel/random/uuid > /2\n",
			})
			last := map[string]string{}
			for rev := range 2 {
				rig.Write(l.T, l.dir, map[string]string{"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%s"]}}
defaults: {labels: {rev: "%d"}}
targets:
  base: {context: base, image: %s/base}
  kid: {context: kid, image: %s/kid}
`, l.mirror.Addr, rev, reg.Addr, reg.Addr)})
				o := l.call(rig.Call{Dir: l.dir, Umask: l.umask, Env: []string{"KANIKO_BUILD_STATE=" + l.state}},
					l.binary, "apply", "--push", "--progress", "plain", "-f", filepath.Join(l.dir, "kaniko-build.yaml"))
				if o.Code != 0 {
					l.Fatal(o.Tail(20))
				}
				for _, n := range []string{"base", "kid"} {
					d := describe(l.T, reg.Addr+"/"+n)
					if got := d.Config.Labels["rev"]; got != fmt.Sprint(rev) {
						l.Errorf("%s: label rev is %q, want %d", n, got, rev)
					}
					if id := l.layer(d, 1); last[n] != "" && last[n] != id {
						l.Errorf("%s: another label made its RUN run again", n)
					}
					last[n] = l.layer(d, 1)
				}
			}
		})
	})
}

// What is below a linked copy is no input of it, and one of all that follow, in
// its stage, in stages that copy from it and in images on it.
func (r reports) WhatIsBelowALinkedCopyCountsAfterIt(t *testing.T) {
	r.under(t, func(l *lab) {
		for _, v := range []string{"one\n", "two\n", "one\n"} {
			l.write(map[string]string{"below": v, "same": "same\n", "Dockerfile": `
FROM busybox AS low
COPY below /low/below
COPY --link same /same
FROM low AS on
RUN cat /low/below > /seen
FROM busybox
COPY --from=low /low /copied
COPY --from=on /seen /seen
`})
			d := l.build()
			l.text(d, "/copied/below", v)
			l.text(d, "/seen", v)
		}
	})
}
