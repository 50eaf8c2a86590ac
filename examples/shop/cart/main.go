// Command cart adds up what is in a cart.
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"

	"shop/lib/httpx"
	"shop/lib/money"
)

func main() {
	httpx.Serve("8082", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil || n < 0 || n > 1000 {
			http.Error(w, "n is the number of teas, up to 1000", http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d teas: %s\n", n, money.Cents(349*n).In(os.Getenv("SHOP_CURRENCY")))
	}))
}
