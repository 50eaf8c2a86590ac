package bugreports

import (
	"archive/tar"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kaniko-build/test/mirror"
)

// A file copied onto a symlink goes where that points, inside the image, as
// with BuildKit; the report wished for the link to be replaced.
func (r reports) BR12CopyOntoADanglingSymlink(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			"file":       "new\n",
			"Dockerfile": "FROM busybox\nRUN mkdir /o && ln -s ../elsewhere/x /o/l\nCOPY file /o/l\n",
		})
		d := l.build()
		if e, _ := d.Find("/o/l"); e.Type != "symlink" || e.Target != "../elsewhere/x" {
			l.Errorf("/o/l is %+v, want the link it was", e)
		}
		l.text(d, "/elsewhere/x", "new\n")
		l.mode(d, "/elsewhere", "dir 0755 0:0")
	})
}

// COPY --from follows links to its source, and keeps those inside of it.
func (r reports) BR13CopyFromThroughASymlinkedDirectory(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": `
FROM busybox AS s
RUN mkdir /real && echo hi > /real/t && ln -s /real /alias && ln -s /alias/t /alias/l && ln -s nowhere /real/dangling && ln -s / /real/up
FROM busybox
COPY --from=s /alias/l /out/l
COPY --from=s /alias/t /out/t
COPY --from=s /alias /whole
COPY --from=s /real/up/real/t /up
`})
		d := l.build()
		l.text(d, "/out/l", "hi\n")
		l.text(d, "/out/t", "hi\n")
		l.text(d, "/up", "hi\n")
		l.names(d, "/whole", "dangling", "l", "t", "up")
		for name, target := range map[string]string{"l": "/alias/t", "dangling": "nowhere", "up": "/"} {
			if e, _ := d.Find("/whole/" + name); e.Type != "symlink" || e.Target != target {
				l.Errorf("/whole/%s is a %s to %q, want a symlink to %q", name, e.Type, e.Target, target)
			}
		}
	})
}

// Layers in which a directory becomes something else, or the other way round,
// hold no whiteout below what is no directory. That they are well formed is
// checked for every image here.
func (r reports) BR16DirectoryReplacedByASymlink(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": `
FROM busybox
RUN mkdir -p /d/sub /x/y && touch /d/x /d/sub/z /x/y/z && echo f > /f
RUN rm -r /d && mkdir /e && ln -s /e /d
RUN rm -r /x && echo file > /x && rm /f && mkdir /f && touch /f/in
RUN rm /d && mkdir /d && touch /d/back
`})
		d := l.build()
		l.names(d, "/d", "back")
		l.names(d, "/e")
		l.text(d, "/x", "file\n")
		l.names(d, "/f", "in")
		want := map[int][]string{1: {"-/d"}, 2: {"-/x"}}
		for _, layer := range d.Layers {
			for _, e := range layer.Entries {
				if strings.HasPrefix(e, "-/d/") || strings.HasPrefix(e, "-/x/") {
					l.Errorf("a layer holds the whiteout %s below what is no directory (want at most %v)", e, want)
				}
			}
		}
	})
}

// A directory that exists keeps its mode when an archive or the top of a tree
// is put there. Directories below the top take over those of the source: so
// does BuildKit, whose goldens win over the report's first half.
func (r reports) BR18CopyChangesAnExistingDirectory(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			"tree/tmp/x": "x\n",
			"Dockerfile": "FROM debian\nRUN mkdir -m 0755 /keep && mkdir -m 1777 /sticky && chown 7:8 /keep\nADD r.tar /keep/\nCOPY tree/tmp /sticky\nCOPY tree/ /\n",
		})
		f, err := os.Create(l.path("r.tar"))
		l.must(err)
		w := tar.NewWriter(f)
		l.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700}))
		l.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./in", Mode: 0o644}))
		l.must(w.Close())
		l.must(f.Close())
		d := l.build()
		l.mode(d, "/keep", "dir 0755 7:8")
		l.mode(d, "/keep/in", "file 0644 0:0")
		l.mode(d, "/sticky", "dir 1777 0:0")
		l.mode(d, "/tmp", "dir 0755 0:0")
		l.mode(d, "/usr", "dir 0755 0:0")
	}, mirror.Debian)
}

// The umask of whoever builds does not show in the image: not a byte of it.
func (r reports) BR19ResultDependsOnTheLaunchersUmask(t *testing.T) {
	digests := map[string]int{}
	r.under(t, func(l *lab) {
		l.write(map[string]string{
			"f":          "f\n",
			"Dockerfile": "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN mkdir /m && touch /m/f && umask > /u\nCOPY --chmod=0777 f /new/f\nCOPY f /plain/f\nWORKDIR /w/d\nADD f /added/f\n",
		})
		d := l.build()
		l.mode(d, "/m", "dir 0755 0:0")
		l.mode(d, "/m/f", "file 0644 0:0")
		l.text(d, "/u", "0022\n")
		l.mode(d, "/new", "dir 0777 0:0")
		l.mode(d, "/new/f", "file 0777 0:0")
		l.mode(d, "/plain", "dir 0755 0:0")
		l.mode(d, "/w/d", "dir 0755 0:0")
		l.mode(d, "/added", "dir 0755 0:0")
		iid := l.path("iid")
		o, _ := l.run(l.state+"-dated", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--iidfile", iid, "-o", "type=oci,dest="+l.out+"/dated.tar,rewrite-timestamp=true")
		if o.Code != 0 {
			l.Fatalf("dated build: %s", o.Tail(20))
		}
		dated := describe(l.T, l.out+"/dated.tar")
		digests[strings.Join(dated.DiffIDs, " ")] = l.umask
	})
	if len(digests) != 1 {
		t.Errorf("umask 022 and 077 give different layers: %v", digests)
	}
}

// WORKDIR's directories belong to the user in force, also one without an
// entry; a group of USER counts.
func (r reports) BR20WorkdirParentsAndUserGroup(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": `
FROM busybox
RUN echo 'crew:x:4242:' >> /etc/group && mkdir -m 777 /o
USER root:crew
RUN id -g > /gid
USER 4321
RUN id -u > /o/uid
WORKDIR /p/q
USER 4321:4242
WORKDIR /r/s
`})
		d := l.build()
		l.text(d, "/gid", "4242\n")
		l.text(d, "/o/uid", "4321\n")
		for _, p := range []string{"/p", "/p/q", "/r", "/r/s"} {
			e, ok := d.Find(p)
			if !ok || e.UID != 4321 {
				l.Errorf("%s: %+v, want it to be of 4321", p, e)
			}
		}
		if e, _ := d.Find("/r/s"); e.GID != 4242 {
			l.Errorf("/r/s: %+v, want it to be of group 4242", e)
		}
	})
}

// Special files in the context are never opened. A fifo is made anew, a
// socket becomes an empty file, as with BuildKit; that, and a device, is warned of,
// warm too.
func (r reports) BR22SpecialFilesInTheContextHangCopy(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"d/f": "f\n", "Dockerfile": "FROM busybox\nCOPY d /d\nRUN ls -l /d\n"})
		old := unix.Umask(0)
		err := unix.Mkfifo(l.path("d/pipe"), 0o640)
		unix.Umask(old)
		l.must(err)
		s, err := net.Listen("unix", l.path("d/sock"))
		l.must(err)
		defer s.Close()
		want := []string{`warning: "d/sock" is a socket: the image gets an empty file in its place (`, "Dockerfile:2:1)"}
		if err := unix.Mknod(l.path("d/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			l.Logf("no device in the context: %v", err)
		} else {
			want = append(want, `warning: "d/null" is a device, and gets into the image as one`)
		}
		d := l.build()
		l.mode(d, "/d/pipe", "fifo 0640 0:0")
		l.text(d, "/d/f", "f\n")
		if e, ok := d.Find("/d/sock"); ok && (e.Type != "file" || e.Size != 0) {
			l.Errorf("/d/sock is %+v, want an empty file or nothing", e)
		}
		if e, ok := d.Find("/d/null"); ok && e.Type != "char" {
			l.Errorf("/d/null is %+v, want a device or nothing", e)
		}
		o, _ := l.run(l.state)
		for _, w := range want {
			if n := strings.Count(o.All(), w); n == 0 || w != want[1] && n > 1 {
				l.Errorf("%q is said %d times in:\n%s", w, n, o.All())
			}
		}
	})
}

// What RUN puts below /var/run is in the image, though /var/run is a link and
// the machine has mounts of its own there.
func (r reports) BR23FilesUnderVarRunDisappear(t *testing.T) {
	r.under(t, func(l *lab) {
		l.write(map[string]string{"Dockerfile": "FROM debian\nRUN mkdir -p /var/run/app && echo ok > /var/run/app/ready\nRUN test -f /run/app/ready\n"})
		d := l.build()
		l.text(d, "/run/app/ready", "ok\n")
		if e, _ := d.Find("/var/run"); e.Type != "symlink" {
			l.Errorf("/var/run is a %s, want the symlink it was", e.Type)
		}
		base := describe(l.T, l.mirror.Addr+"/library/debian")
		for _, name := range below(d, "/run") {
			if _, ok := base.Find("/run/" + name); !ok && name != "app" && name != "app/ready" {
				l.Errorf("/run/%s came into the image from outside", name)
			}
		}
	}, mirror.Debian)
}
