// Package money holds amounts in whole cents.
package money

import "fmt"

// Cents is an amount of the shop's currency.
type Cents int64

// In prints the amount with its currency.
func (c Cents) In(currency string) string {
	sign := ""
	if c < 0 {
		sign, c = "-", -c
	}
	return fmt.Sprintf("%s%d.%02d %s", sign, c/100, c%100, currency)
}
