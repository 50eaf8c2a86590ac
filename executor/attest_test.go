package executor

import "testing"

func TestRedacted(t *testing.T) {
	for in, want := range map[string]string{
		"https://example.com/a?b=c#d":         "https://example.com/a?b=c#d",
		"https://user:secret@example.com/a":   "https://xxxxx:xxxxx@example.com/a",
		"https://token@example.com/a":         "https://xxxxx:xxxxx@example.com/a",
		"https://user:se%zzcret@example.com/": "https://example.com/",
		"docker-image://busybox:1":            "docker-image://busybox:1",
		"git@example.com:a/b.git":             "git@example.com:a/b.git",
		"local:name":                          "local:name",
	} {
		if got := Redacted(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
