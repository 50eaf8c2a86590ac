package notify

import "testing"

// TestMountsOfAnInterest: only mounts at, above and below what is watched count.
func TestMountsOfAnInterest(t *testing.T) {
	const (
		root  = "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
		other = "30 22 0:5 / /other rw - tmpfs x rw\n"
		near  = "31 22 0:6 / /w rw - tmpfs x rw\n"
		below = "32 31 0:7 / /w/my\\040dir/d rw - tmpfs x rw\n"
		name  = "33 31 0:8 / /w/my\\040dirs rw - tmpfs x rw\n"
	)
	if got := mountsOf(root+other+near+below+name+"broken\n", []string{"/w/my dir"}); got != root+near+below {
		t.Errorf("got\n%s", got)
	}
	if got := mountsOf(root+other, nil); got != "" {
		t.Errorf("of nothing: %s", got)
	}
}
